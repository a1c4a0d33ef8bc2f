"""The text form of the report of `task=check`."""

from collections.abc import Mapping
from typing import Any

from archsmith.data.image_tree import PassedOver
from archsmith.result.profile import profile_lines


def check_text(report: Mapping[str, Any]) -> str:
    """The report of `check` as lines; only the files if a run would refuse them."""
    lines = _of_files(report["files"]) if report.get("files") else []
    if not report["ready"]:
        return "\n".join(lines) + "\n"
    data, stem, counts = report["data"], report["stem"], report["data"]["train"].values()
    size = "x".join(map(str, data["input_shape"]))
    of_images = (
        f"data      {data['name']}: {sum(counts)} training images of {data['classes']} classes, "
        f"{min(counts)} to {max(counts)} each, read as {size}",
        f"stem      search {stem['search']}, retrain {stem['retrain']}; "
        f"suggested for {size.partition('x')[2]}: {stem['suggested']}",
        *(
            f"space     {line}"
            for line in (profile_lines(report["profile"]) if "profile" in report else ())
        ),
    )
    of_text = (
        f"data      {data['name']}: {sum(counts)} training characters, {data['classes']} different "
        f"ones, in windows of {data['input_shape'][2]}",
    )
    lines += [
        *(of_text if data["text"] else of_images),
        *(_of_phase(name, report[name]) for name in ("search", "retrain") if report.get(name)),
        f"          measured on {report['device']}, as busy as it is now; memory of the whole "
        "process on a CPU",
        *(f"warning   {warning}" for warning in report["warnings"]),
        f"to go on  {report['command']}",
    ]
    return "\n".join(lines) + "\n"


def _of_phase(name: str, told: Mapping[str, Any]) -> str:
    if told.get("scores") == 0:
        return f"{name:<9} one architecture without a score: nothing is trained"
    if "seconds" not in told:
        return f"{name:<9} {told['scores']} scores of a table: nothing is trained"
    scored = {"training": "trainings", "inherited": "scores by a supernet"}
    scores = f"{told['scores']} {scored[told['score']]} of " if "scores" in told else ""
    median, low, high = (duration(told["seconds"][of]) for of in ("median", "low", "high"))
    return (
        f"{name:<9} {scores}{told['epochs']} epochs of {told['steps_an_epoch']} steps: "
        f"about {median} ({low} to {high}), peak {told['peak_memory_bytes'] / 1e9:.2f} GB"
        + ("" if told["measured"] else ", estimated from small images")
    )


def _of_files(files: Mapping[str, Any]) -> list[str]:
    lines = []
    for part, images in files["images"].items():
        counts = list(images.values())
        lines.append(
            f"{part:<9} {sum(counts)} files, {min(counts)} to {max(counts)} a class; sizes "
            f"{_most(files['sizes'][part])}; modes {_most(files['modes'][part])}"
        )
        lines += [f"  cannot be read: {reason}" for reason in files["unreadable"][part]]
    lines += [f"passed over: {reason}" for reason in PassedOver(**files["passed_over"]).lines()]
    classes = list(files["images"]["train"])
    shown = ", ".join(
        f"{name} {'+'.join(str(part.get(name, 0)) for part in files['images'].values())}"
        for name in classes[:20]
    )
    parts = "+".join(files["images"])
    more = f", and {len(classes) - 20} more in preflight.json" if len(classes) > 20 else ""
    return [*lines, f"classes   ({parts}) {shown}{more}"]


def _most(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:4])
    return shown + (f" and {len(counts) - 4} others" if len(counts) > 4 else "")


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
