"""Writes `excerpts/` anew from the shared golden files: `python tests/golden/make_excerpts.py`.

Chosen by hand to tell mistakes apart: nearly tied parses that the mistakes of `wrong_if` change,
bilevel cases of varied xi, momentum and weight decay, architectures with nodes that get nothing,
and of forward.npz what is small: networks, ops of stride 2.
"""

import json
from functools import partial
from typing import Any

import numpy as np
from golden_files import FOLDERS, read

CASES = {  # file -> section -> ids (or names) of the cases kept; a section not named is kept whole
    "genotype_parse.json": {
        "darts": ["darts-0040", "darts-0088", "darts-0297", "darts-0329"],
        "pc_darts": ["pcdarts-0120", "pcdarts-0256", "pcdarts-0310", "pcdarts-0358"],
        "nas_bench_201": ["nb201-0000", "nb201-0002", "nb201-0029", "nb201-0194"],
        "robust_darts": ["robust-s1-00", "robust-s2-01", "robust-s3-00", "robust-s4-00"],
        "gold_nas": ["gold-02", "gold-23"],
    },
    "published_genotypes.json": {
        "genotypes": [
            "DARTS_V2",
            "PC_DARTS_cifar",
            "RobustDARTS_RandomNAS_s3_cifar10_0.0_0.0003_run4",
            "RobustDARTS_RandomNAS_s4_cifar100_0.0_0.0003_run4",
        ],
        "gold_nas_genotypes": [],
    },
    "supernet_counts.json": {
        "supernets": [
            "DARTS",
            "PC-DARTS",
            "PC-DARTS-ImageNet",
            "GOLD-NAS-C16",
            "RobustDARTS-S1",
            "RobustDARTS-S3",
            "RobustDARTS-S4",
            "NAS-Bench-201 TinyNetworkDarts affine=False track_running_stats=True",
            "NAS-Bench-201 TinyNetworkDarts affine=True track_running_stats=True",
            "NAS-Bench-201 GenericNAS201Model affine=False track_running_stats=False",
        ]
    },
    "nb201_counts.json": {
        "architectures": [
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
            "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
            "|none~0|+|none~0|nor_conv_1x1~1|+|none~0|nor_conv_3x3~1|skip_connect~2|",
            "|none~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_3x3~2|",
        ]
    },
    "bilevel.json": {"cases": [f"bilevel-{n:03d}" for n in (16, 32, 44, 51, 83, 88, 109, 119)]},
}
ARRAYS = (  # beginnings of the keys of forward.npz kept: inputs, then items
    "meta",
    "x__",
    "x_image",
    "nb201_alphas",
    "darts_op__sep_conv_3x3__stride2__affine1",
    "darts_op__dil_conv_5x5__stride2__affine0",
    "darts_op__avg_pool_3x3+bn__stride2",
    "nb201_op__avg_pool_3x3__double_s2__affine1",
    "nb201_infer_cell__1",
    "net__",
    "pcdarts_mixed__channel_shuffle_source_index",
)


def name_of(case: dict[str, Any]) -> str:
    return next(case[key] for key in ("id", "name", "arch_str") if key in case)


def excerpt(file: dict[str, Any], sections: dict[str, list[str]]) -> dict[str, Any]:
    """The file with only the named cases of its sections, all of which must exist."""
    kept = dict(file)
    for section, names in sections.items():
        by_name = {name_of(case): case for case in file[section]}
        kept[section] = [by_name[name] for name in names]
    return kept


dense = partial(json.dumps, separators=(",", ":"))


def lines(content: dict[str, Any]) -> str:
    """JSON with one case per line."""
    parts = []
    for key, value in content.items():
        text = dense(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(dense(each) for each in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    folder = FOLDERS["excerpts"]
    folder.mkdir(exist_ok=True)
    for name, sections in CASES.items():
        text = lines(excerpt(read("shared", name), sections))
        (folder / name).write_text(text, encoding="utf-8")
    arrays = read("shared", "forward.npz")
    arrays = {key: arrays[key] for key in arrays if f"{key}__".startswith(ARRAYS)}
    np.savez_compressed(folder / "forward.npz", **arrays)


if __name__ == "__main__":
    main()
