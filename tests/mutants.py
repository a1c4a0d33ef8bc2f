"""Mutation testing: `python tests/mutants.py [--survivors] [module ...]`, see docs/reliability.md.

cosmic-ray (the extra `mutants`) changes a module in one place and the tests that watch it are run:
they should fail. `tests/mutants.toml` says which modules, changes and tests. A session of each
module, `build/mutants/*.sqlite`, keeps the results: a run that was stopped continues, `--survivors`
tries those again that survived, and a module that was edited starts anew. `cr-report` and `cr-html`
read a session.

The changes are made to a copy of the project in `build/mutants/tree`. Tests run in a fork of a
process that has imported torch and the other libraries: that import takes longer than most tests.
"""

import ast
import gc
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zlib
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.tools.filters.operators_filter import OperatorsFilter
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
TREE = BUILD / "tree"
CONFIG = ROOT / "tests" / "mutants.toml"
SETTINGS = tomllib.loads(CONFIG.read_text())
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not exhaustive"]
ORDERING = re.compile(r"Operator_(Eq|NotEq)_(Lt|LtE|Gt|GtE)$")
LOGGED = ("log", "logging", "warnings")

Place = tuple[int, int]  # line, column


def main(*modules: str, survivors: bool) -> None:
    copy_project()
    for module in modules or SETTINGS["watched"]:
        tests = SETTINGS["watched"][module]
        content = zlib.crc32((TREE / module).read_bytes())
        file = BUILD / f"{module.replace('/', '.')}.{content:08x}.sqlite"
        with use_db(str(file), WorkDB.Mode.create) as session:
            if not session.num_work_items:
                start(session, module)
            pending = list(session.pending_work_items)
            if survivors:
                alive = {
                    job for job, r in session.results if r.test_outcome == TestOutcome.SURVIVED
                }
                pending += [item for item in session.work_items if item.job_id in alive]
            took = unchanged(tests) if pending else 0.0
            for item in pending:
                (mutation,) = item.mutations
                session.set_result(item.job_id, tried(mutation, tests, 30 + 4 * took))
            tell(session, module)


def copy_project() -> None:
    """Copies what git tracks; `shared/` beside the project, where there is one, stays beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    shutil.rmtree(TREE, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)
    shared, beside = ROOT.parent / "shared", BUILD / "shared"
    if shared.exists() and not beside.exists():
        beside.symlink_to(shared.resolve())


def start(session: WorkDB, module: str) -> None:
    """Fills a session with the mutants to try; all others are marked as skipped."""
    os.chdir(TREE)
    init([Path(module)], session, {})
    OperatorsFilter().filter(session, Namespace(config=str(CONFIG)))
    tree = ast.parse(Path(module).read_text())
    silent, words = list(_silent(tree)), list(_words(tree))
    draw = random.Random(SETTINGS["sample"]["seed"])
    places = defaultdict(list)
    skipped = []
    for item in session.pending_work_items:
        (mutation,) = item.mutations
        spans = [*silent, *(words if ORDERING.search(mutation.operator_name) else ())]
        if any(begin <= mutation.start_pos < end for begin, end in spans):
            skipped.append(item.job_id)
        else:
            family = mutation.operator_name.rpartition("/")[2].partition("_")[0]
            places[mutation.start_pos, family].append(item.job_id)
    drawn = []
    for place in sorted(places):
        draw.shuffle(places[place])
        drawn += places[place][: SETTINGS["sample"]["per_place"]]
        skipped += places[place][SETTINGS["sample"]["per_place"] :]
    draw.shuffle(drawn)
    skipped += drawn[SETTINGS["sample"]["per_module"] :]
    for job in skipped:
        session.set_result(job, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _words(tree: ast.Module) -> Iterator[tuple[Place, Place]]:
    """Spans of comparisons with a word, `kind == "zero"`, whose place in the alphabet says
    nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(side, ast.Constant) and isinstance(side.value, str)
            for side in (node.left, *node.comparators)
        ):
            yield (
                (node.lineno, node.col_offset),
                (node.end_lineno or 0, node.end_col_offset or 0),
            )


def _silent(tree: ast.Module) -> Iterator[tuple[Place, Place]]:
    """Spans whose change no test should tell: signatures but their defaults, messages, lines of a
    log, decorators, `strict=True`, which asserts what is so, `foreach=True`, which is speed alone,
    and imports for types."""
    for node in ast.walk(tree):
        found: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            found = [*node.decorator_list]
            begin = node.lineno, node.col_offset
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                yield begin, (default.lineno, default.col_offset)
                begin = default.end_lineno or 0, default.end_col_offset or 0
            yield begin, (node.body[0].lineno, node.body[0].col_offset)
        elif isinstance(node, ast.ClassDef):
            found = [*node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            found = [node.annotation]
        elif isinstance(node, ast.Assert):
            found = [node.msg]
        elif isinstance(node, ast.Raise):
            found = [node.exc]
        elif isinstance(node, ast.keyword | ast.If | ast.Call) and _says_nothing(node):
            found = [node]
        for part in filter(None, found):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def _says_nothing(node: ast.keyword | ast.If | ast.Call) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in ("strict", "foreach")
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return ast.unparse(node.func).partition(".")[0] in LOGGED


def unchanged(tests: Sequence[str]) -> float:
    """Seconds of the tests without a mutation; the libraries they import are imported here, too."""
    heard, began = BUILD / "modules.json", time.perf_counter()
    code, said = forked(tests, 3600, heard)
    took = time.perf_counter() - began
    if code != 0:
        sys.exit(f"mutants: the tests fail without a mutation\n{said}")
    for name in json.loads(heard.read_text()):
        with suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # pytest collects garbage when it ends; that is quick without what stands here
    return took


def tried(mutation: MutationSpec, tests: Sequence[str], limit: float) -> WorkResult:
    """Killed by a failure, a hang or a crash; a mutant that cannot be imported is killed, too."""
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    os.chdir(TREE)
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
        if after is None:
            return WorkResult(worker_outcome=WorkerOutcome.NO_TEST)
        code, said = forked(tests, limit)
    line = mutation.start_pos[0] - 1
    diff = f"-{before.splitlines()[line].strip()}\n+{after.splitlines()[line].strip()}"
    outcome = TestOutcome.SURVIVED if code == 0 else TestOutcome.KILLED
    return WorkResult(WorkerOutcome.NORMAL, said[-2000:], outcome, diff)


def forked(tests: Sequence[str], limit: float, heard: Path | None = None) -> tuple[int, str]:
    """pytest's exit code and text in a fork, or -1 for what hangs; writes the libraries' names."""
    output = BUILD / "output.txt"
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(TREE)
        out = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.path[:] = [
            str(TREE),
            *(p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "tests")),
        ]
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:1])
        sys.dont_write_bytecode = heard is None
        code = 99
        try:
            code = int(pytest.main([*PYTEST, *tests]))
            if heard is not None:
                heard.write_text(json.dumps(_libraries()))
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")
            time.sleep(0.02)
    finally:  # also when this process is interrupted
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1, "hangs"


def _libraries() -> list[str]:
    """Imported modules that are not the project's; its plugins share a name with Hydra's."""
    ours = (str(TREE), str(ROOT))
    return [
        name
        for name, module in sys.modules.items()
        if (file := getattr(module, "__file__", None))
        and ("site-packages" in file or not file.startswith(ours))
        and not name.startswith(("hydra_plugins", "__"))
    ]


def tell(session: WorkDB, module: str) -> None:
    """Prints how many mutants of a module were tried and killed, and those that survived."""
    by_job = {item.job_id: item.mutations[0] for item in session.work_items}
    results = [
        (by_job[job], result)
        for job, result in session.results
        if result.worker_outcome == WorkerOutcome.NORMAL
    ]
    alive = [(m, r) for m, r in results if r.test_outcome == TestOutcome.SURVIVED]
    killed = len(results) - len(alive)
    share = f"{killed / len(results):.1%}" if results else "none"
    print(f"{module}: {len(results)} tried, {killed} killed, {share}")
    for mutation, result in sorted(alive, key=lambda found: found[0].start_pos):
        print(f"  {module}:{mutation.start_pos[0]} in {mutation.definition_name}")
        for line in result.diff.splitlines():
            print(f"    {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*(a for a in sys.argv[1:] if a[0] != "-"), survivors="--survivors" in sys.argv)
