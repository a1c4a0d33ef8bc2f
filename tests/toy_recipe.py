"""A recipe for a toy of the DARTS space, and what stands on its edges."""

from archsmith.result.recipe import Recipe

RECIPE = Recipe(
    layers=3, channels=8, stem=None, epochs=3, batch_size=4, lr=0.05, min_lr=0.0, schedule="cosine",
    warmup_epochs=0, momentum=0.9, nesterov=False, weight_decay=1e-3, clip=5.0, label_smoothing=0.1,
    auxiliary_weight=0.4, drop_path=0.3, crop=0, flip=False, cutout=0, ema=0.8, precision="float32",
)  # fmt: skip
EDGES = {"0-2": ("sep_conv_3x3",), "1-2": ("skip_connect",), "0-3": ("max_pool_3x3",),
         "2-3": ("dil_conv_3x3",)}  # fmt: skip
