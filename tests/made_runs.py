"""Folders of finished runs, made by hand for tests of comparisons."""

import json
from pathlib import Path
from typing import Any

from archsmith.train.record import RESULTS


def add(folder: Path, strategy: str, seed: int, accuracy: float | None, **more: Any) -> Path:
    """A run's folder; with `epochs` of retraining and `lr` of its strategy."""
    path = folder / f"{strategy}-{seed}-{'-'.join(map(str, more.values()))}"
    path.mkdir(parents=True)
    config = {
        "seed": seed,
        "strategy": {"name": strategy, "lr": more.get("lr", 0.1)},
        "retrain": {"epochs": more.get("epochs", 5), "channels": 12},
        "search": {"epochs": more.get("searched", 6)},
        "data": {"root": more.get("root"), "limit": None, "seed": more.get("data_seed", 0)},
    }
    if "architecture" in more:
        config["architecture"] = more["architecture"]
    (path / "config.json").write_text(json.dumps(config))
    if accuracy is None:
        return path
    results = dict.fromkeys(RESULTS) | {
        "strategy": strategy, "seed": seed, "test_accuracy": accuracy,
        "seconds": more.get("seconds", {"search": 10.0}),
        "data_fingerprint": more.get("content", "c0ffee"), "parameters": more.get("parameters"),
        "diagnosis": more.get("diagnosis"), "benchmark": more.get("benchmark"),
    }  # fmt: skip
    (path / "results.json").write_text(json.dumps(results))
    (path / "phases.json").write_text(json.dumps({"search": {}}))
    return path
