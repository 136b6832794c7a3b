"""From arguments and YAML to a checked `Conf`. Does not need torch."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from torch_bregman.train.conf import Conf


def add_conf(parser: ArgumentParser) -> None:
    """Add `--config FILE` and one flag for every field of `Conf`."""
    parser.add_argument("--config", action="config", help="a YAML file with any of the fields below")
    parser.add_class_arguments(Conf, nested_key=None)


def build_conf(parser: ArgumentParser, parsed: Namespace) -> Conf:
    """Return the checked configuration of parsed arguments."""
    built = parser.instantiate(parsed)
    return Conf(**{key: value for key, value in vars(built).items() if key in Conf.__dataclass_fields__})


def parse_conf(arguments: Sequence[str]) -> Conf:
    """Return the configuration that command-line arguments describe.

    Raises:
        ValueError: for an unknown field, a wrong value, or a file that is no YAML mapping.

    Example:
        >>> parse_conf(["--epochs", "3", "--optim.name", "adabreg", "--regularizer.lam", "1e-1"]).epochs
        3
    """
    from argparse import ArgumentError

    parser = ArgumentParser(exit_on_error=False)
    add_conf(parser)
    try:
        return build_conf(parser, parser.parse_args(list(arguments)))
    except ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from None
