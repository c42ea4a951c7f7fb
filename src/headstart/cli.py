"""The command line: each command parses, calls one function and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart import __version__

app = typer.Typer(name="headstart", help="Transfer learning that proves it helped.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder of the run: journal, result, model and report.")]


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Transfer learning that proves it helped."""
    if version:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.command()
def transfer(
    photos: Annotated[Path, typer.Argument(help="Folder that holds one folder of images per class.")],
    out: Out,
    budget: Annotated[str, typer.Option(help="Time to spend, such as 90s, 5m, 2h.")] = "5m",
    seed: Annotated[int, typer.Option(help="Decides splits, initial weights and proposals.")] = 0,
    source: Annotated[list[str] | None, typer.Option(help="A source to try; may be repeated. Default: all that are installed.")] = None,
    group_by: Annotated[str | None, typer.Option(help="Regular expression on the path; what matches alike is never split, e.g. '(patient\\d+)'.")] = None,
    margin: Annotated[float, typer.Option(help="Smallest gain in balanced accuracy, 0..1, that is worth a transfer.")] = 0.0,
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")] = False,
) -> None:
    """Transfer to a folder of images, and say whether it helped."""
    from headstart.terminal import transfer_and_report

    transfer_and_report(
        photos, out, budget=budget, seed=seed, names=source, group_by=group_by, margin=margin, skip_unreadable=skip_unreadable, command=_command(out)
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(help="CSV file to write: path, label, probability, and each label's probability.")],
) -> None:
    """Predict labels with calibrated probabilities."""
    from headstart.terminal import predict_to_csv

    predict_to_csv(run, images, out)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Write the report of a run again, and say where it is."""
    from headstart.terminal import write_report

    print(f"Report: {write_report(run)}")


@app.command()
def sources(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what can be transferred from."""
    from headstart.terminal import print_sources

    print_sources(as_json=json)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except ValueError as error:
        from headstart.core import InputError

        if not isinstance(error, InputError):
            raise
        print(f"headstart: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("headstart: stopped. Run the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _command(out: Path) -> str:
    """The command without its --out, which does not decide the result."""
    import shlex

    words = sys.argv[1:]
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--out" and not word.startswith("--out="):
            kept.append(word)
        skip = word == "--out"
    return shlex.join(["headstart", *kept])
