"""The fixed text of a stand-alone `model.py`; `standalone.py` beside it fills in what differs."""

NAMES = (  # what the text below defines
    *("INPUT_SHAPE", "CLASSES", "MEAN", "STD", "RESIZE", "PARAMETERS", "MACS"),
    *("CELLS", "OPERATIONS", "WEIGHTS", "DTYPES"),
    *("Edge", "Cell", "Network", "read_weights", "build", "load", "prepare", "read_image", "main"),
)
IMPORTS = (
    ("functools", "reduce"),
    ("json", None),
    ("math", "prod"),
    ("operator", "add"),
    ("pathlib", "Path"),
    ("sys", None),
    ("torch", None),
    ("torch", "Tensor"),
    ("torch", "nn"),
)

HEAD = '''\
"""Architecture $identity of the $space space, found with Archsmith.

It needs torch, and its weights beside it:

    import model

    net = model.load()
    logits = net(model.prepare(image))  # image (C, H, W), uint8 of 0..255 or float of 0..1

`prepare` normalises; it refuses an image of another size, type or range than the network knows.

In a shell, `python model.py` prints its size and `python model.py image.npy` the class of an image.
"""

$imports

INPUT_SHAPE = $input_shape  # channels, height, width
CLASSES = $classes
MEAN = $mean  # of each channel, for pixels of 0..1
STD = $std
RESIZE = $resize  # how the training images came to height and width; proportions were not kept
PARAMETERS = $parameters
MACS = $macs  # multiply-accumulates for one image, in convolutions and matrix products

# cell -> {node: {earlier node: operations}}: a node adds up what operations make of earlier ones.
CELLS = $cells
'''

EDGE = '''\
class Edge(nn.Module):
    """The operations between two nodes, added up."""

    def __init__(self, names: list[str], channels: int, stride: int):
        super().__init__()
        self.ops = nn.ModuleList(OPERATIONS[name](channels, channels, stride) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return reduce(add, (op(x) for op in self.ops))
'''

CELL = '''\
class Cell(nn.Module):
    """$about"""

    def __init__(self, name: str, channels: int$init_parameters):
        super().__init__()
        self.nodes = CELLS[name]
$init_lines        self.edges = nn.ModuleDict(
            {
                f"{source}-{node}": Edge(names, channels, $edge_stride)
                for node, sources in self.nodes.items()
                for source, names in sources.items()
            }
        )

    def forward(self, $forward_parameters) -> Tensor:
$forward_lines        return $output
'''

ABOUT_CELL = {
    (
        1,
        "last",
    ): "Adds up operations on earlier nodes; node 0 is the layer before, the last node leaves.",
    (
        2,
        "concat",
    ): "Adds up operations on earlier nodes; 0 and 1 are the two layers before, the rest leave.",
}

SUMS = """\
        states = [$states]
        for node, sources in self.nodes.items():
            states.append(reduce(add, (self.edges[f"{j}-{node}"](states[j]) for j in sources)))
"""

SUMS_WITH_EMPTY = """\
        states = [$states]
        zeros = torch.zeros_like(states[$last_input]$every_second)
        for node, sources in self.nodes.items():
            given = [self.edges[f"{j}-{node}"](states[j]) for j in sources]
            states.append(reduce(add, given) if given else zeros)  # nothing may enter a node
"""

LAYER_INDENT = " " * 16
NETWORK = '''\
class Network(nn.Module):
    """Images (B, C, H, W) to logits (B, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_second, _ = $stem($image_channels, $stem_channels)
        self.layers = nn.ModuleList(
            [
$layers
            ]
        )
        self.head = $head($head_channels, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
$forward_lines
        return self.head(last)
'''

ONE_INPUT = """\
        last = self.stem_second(self.stem(x))
        for layer in self.layers:
            last = layer(last)"""

TWO_INPUTS = """\
        before = self.stem(x)
        last = self.stem_second(before)
        for layer in self.layers:
            before, last = last, layer(before, last)"""

USE = '''\
WEIGHTS = Path(__file__).with_name("weights.safetensors")
DTYPES = $dtypes


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: a header's length, the header in JSON, the numbers."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        offset = start + entry["data_offsets"][0]
        flat = torch.frombuffer(content, dtype=dtype, count=prod(shape), offset=offset)
        tensors[name] = flat.reshape(shape)
    return tensors


def build() -> Network:
    """The network, untrained."""
    return Network()


def load(path: Path = WEIGHTS) -> Network:
    """The trained network, ready to classify."""
    net = build()
    net.load_state_dict(read_weights(path))
    return net.eval()


def prepare(image: Tensor) -> Tensor:
    """The network's input (1, C, H, W) for an image (C, H, W), uint8 of 0..255 or float of 0..1."""
    if tuple(image.shape) != INPUT_SHAPE:
        found = tuple(image.shape)
        raise ValueError(f"expected an image {INPUT_SHAPE}, found {found}: resize it ({RESIZE})")
    x = image / 255 if image.dtype == torch.uint8 else image
    least, most = x.min().item(), x.max().item()
    if not x.is_floating_point() or not 0 <= least <= most <= 1:
        found = f"{image.dtype} of {least:.3g} to {most:.3g}"
        raise ValueError(f"expected uint8 of 0..255 or float of 0..1, found {found}")
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((x.float() - mean) / std)[None]


def read_image(path: str) -> Tensor:
    """The image in a file of `numpy.save`, `torch.save` or (with Pillow) a picture, in its size."""
    import numpy

    if path.endswith(".npy"):
        return torch.from_numpy(numpy.load(path))
    if path.endswith((".pt", ".pth")):
        return torch.load(path, weights_only=True)
    from PIL import Image

    with Image.open(path) as picture:
        pixels = numpy.array(picture.convert("L" if INPUT_SHAPE[0] == 1 else "RGB"))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


@torch.inference_mode()
def main(paths: list[str]) -> None:
    """Prints the class of each image, or without one the size of the network."""
    if not paths:
        print(f"{PARAMETERS:,} parameters, {MACS:,} multiply-accumulates an image {INPUT_SHAPE}")
        return
    net = load()
    for path in paths:
        try:
            shares = net(prepare(read_image(path)))[0].softmax(0)
        except (OSError, ValueError, ImportError) as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: {CLASSES[shares.argmax()]} ({shares.max():.1%})")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a class may have a name it cannot print
    main(sys.argv[1:])
'''
