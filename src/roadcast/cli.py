"""The command `roadcast`. An error is one line with its remedy; `--verbose` shows the trace."""

import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

import roadcast
from roadcast.errors import RoadcastError, SourceError
from roadcast.settings import Mode, Settings, doubts, load_settings

if TYPE_CHECKING:
    from roadcast.sources.formats import SourceFile

app = typer.Typer(
    help="Roadcast: real-time traffic prediction.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

ModeOption = Annotated[Mode, typer.Option("--config", help="How the system is run.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"roadcast {roadcast.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _Errors.verbose = verbose


class _Errors:
    """How errors are shown."""

    verbose = False


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(app(standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):  # typer makes the one of the other
        _say("interrupted.")
        sys.exit(130)
    except typer.TyperException as error:
        if str(error):  # what has none has shown the help
            what = error.format_message().replace("Value error, ", "").removesuffix(".")
            _say(f"{what}. roadcast --help says what there is.")
        sys.exit(2)
    except (RoadcastError, OSError) as error:
        if _Errors.verbose:
            raise
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        _say(said)
        sys.exit(1)
    except Exception as error:  # nobody foresaw it, and a user gets no trace unasked
        if _Errors.verbose:
            raise
        _say(f"unexpected {type(error).__name__}: {error}. roadcast --verbose shows the trace.")
        sys.exit(1)


def _say(text: str) -> None:
    sys.stderr.write(f"roadcast: {' '.join(text.split())}\n")


@app.command()
def serve(
    config: ModeOption = Mode.DEVELOPMENT,
    health_check: Annotated[bool, typer.Option(help="Say how everything is, once it runs.")] = False,
) -> None:
    """Run everything in the foreground until Ctrl-C."""
    from roadcast.supervisor import PROGRAM, supervise  # noqa: PLC0415 - each command loads only what it needs

    settings = load_settings(config)
    for doubt in doubts(settings):
        _say(f"warning: {doubt}")
    as_said = ("--verbose",) if _Errors.verbose else ()
    raise typer.Exit(supervise(settings, config, worker=(*PROGRAM, *as_said, "worker"), health_check=health_check))


@app.command(hidden=True)
def worker() -> None:
    """Serve on behalf of a supervisor, which says on standard input where things are."""
    from roadcast.store import database_address, embedded_address  # noqa: PLC0415
    from roadcast.supervisor import EX_CONFIG, owner  # noqa: PLC0415
    from roadcast.worker import serve as serve_here  # noqa: PLC0415

    told = owner()
    try:
        settings = load_settings(told.mode)
        embedded = told.database
        address = embedded_address(embedded, settings.data_dir) if embedded else database_address(settings)
        code = serve_here(settings, told.mode, address, socket.socket(fileno=told.socket))
    except RoadcastError as error:
        _say(str(error))
        code = EX_CONFIG
    raise typer.Exit(code)


@app.command()
def health(
    url: Annotated[str | None, typer.Option(help="The system's address; by default the local one.")] = None,
) -> None:
    """Check a running system: a table of its parts; exit code 0 when all is well."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from roadcast.client import ask_health  # noqa: PLC0415

    address = url or load_settings().local_url
    found = ask_health(address)
    table = Table(title=f"{address}: {found.status}")
    for name in ("part", "status", "since", "detail", "remedy"):
        table.add_column(name, overflow="fold")
    for part in found.parts:
        table.add_row(part.name, part.status, part.since, part.detail, part.remedy)
    Console().print(table)
    raise typer.Exit(0 if found.status in {"ok", "starting"} else 1)


FileArgument = Annotated[Path, typer.Argument(help="The file.")]
StrictOption = Annotated[bool, typer.Option(help="Stop at the first bad row.")]


class Protocol(StrEnum):
    """How a backtest puts errors together."""

    POOLED = "pooled"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What a file does not say about itself, as options of a command."""

    timezone: Annotated[str | None, typer.Option(help="Zone of naive stamps; by default TIMEZONE.")] = None
    locations: Annotated[Path | None, typer.Option(help="Sensor locations, where the file has none.")] = None
    distances: Annotated[Path | None, typer.Option(help="Distances between sensors, where the file has none.")] = None
    speed_unit: Annotated[
        str | None, typer.Option(help="Unit of speeds in a CSV: mph or km/h; by default of UNITS.")
    ] = None
    density_unit: Annotated[
        str | None, typer.Option(help="Unit of densities in a CSV: veh/mi or veh/km; by default of UNITS.")
    ] = None
    occupancy_unit: Annotated[str, typer.Option(help="Unit of occupancies in a CSV: fraction or percent.")] = "fraction"
    variable: Annotated[str, typer.Option(help="What a wide CSV holds, and what is forecast.")] = "speed"

    def zone(self, settings: Settings) -> str:
        """The zone of the file's naive stamps, and of the roads that it tells of."""
        return self.timezone or settings.timezone

    def open(self, file: Path, settings: Settings, *, zero_is_missing: bool | None = None) -> "SourceFile":
        """The file as a source."""
        from roadcast.commands import latest_ms  # noqa: PLC0415
        from roadcast.sources.formats import FormatOptions, open_source  # noqa: PLC0415

        given: dict[str, Any] = {**asdict(self), "timezone": self.zone(settings)}
        options = FormatOptions(
            **given, zero_is_missing=zero_is_missing, units=settings.units, latest_ms=latest_ms(settings)
        )
        return open_source(file, options)


def _with_file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `options: FileOptions` an option for each of its fields."""
    hints = get_type_hints(FileOptions, include_extras=True)
    of_file = [
        Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(FileOptions)
    ]
    own = [parameter for parameter in signature(command).parameters.values() if parameter.name != "options"]

    @wraps(command)
    def run(**given: Any) -> None:
        options = FileOptions(**{parameter.name: given.pop(parameter.name) for parameter in of_file})
        command(**given, options=options)

    run.__signature__ = Signature([*own, *of_file])  # pyright: ignore[reportAttributeAccessIssue] - typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *of_file)}
    return run


@app.command("import")
@_with_file_options
def import_file(*, file: FileArgument, strict: StrictOption = False, options: FileOptions) -> None:
    """Load history and sensors from a file: npz, METR-LA/PEMS-BAY HDF5, PeMS station text, CSV (wide or long)."""
    from roadcast.commands import import_history  # noqa: PLC0415

    settings = load_settings()
    import_history(settings, options.open(file, settings), strict=strict)


@app.command()
@_with_file_options
def replay(
    *,
    file: FileArgument,
    speed: Annotated[float, typer.Option(help="Seconds of event time per second; 0: as fast as possible.")] = 60.0,
    url: Annotated[str | None, typer.Option(help="The system's address; by default the local one.")] = None,
    strict: StrictOption = False,
    options: FileOptions,
) -> None:
    """Feed a file to the running system in event time."""
    from roadcast.commands import replay_file  # noqa: PLC0415

    settings = load_settings()
    replay_file(settings, options.open(file, settings), speed=speed, url=url, strict=strict)


@app.command()
@_with_file_options
def backtest(
    *,
    file: FileArgument,
    test_from: Annotated[
        int | None, typer.Option(help="The first row of the test: a window that holds readings; by default of --split.")
    ] = None,
    split: Annotated[float, typer.Option(help="Share of the file's rows that is learnt from.")] = 0.8,
    protocol: Annotated[
        Protocol, typer.Option(help="Errors up to each horizon together, or of each step.")
    ] = Protocol.POOLED,
    horizons: Annotated[str, typer.Option(help="Steps ahead, comma-separated.")] = "3,6,9,12",
    mask_zeros: Annotated[
        bool | None, typer.Option(help="Read zeros as missing; by default where import does.", show_default=False)
    ] = None,
    models: Annotated[str | None, typer.Option(help="Forecasters, comma-separated; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of those that learn by chance.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the numbers.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for the report with pictures.")] = None,
    options: FileOptions,
) -> None:
    """Judge the forecasters on the last part of a file, of which nothing is learnt."""
    from roadcast.commands import BacktestWish, backtest_file  # noqa: PLC0415
    from roadcast.plugins import load  # noqa: PLC0415

    settings = load_settings()
    if not 0 < split < 1:
        raise SourceError(f"--split {split:g}: expected a share between 0 and 1")
    steps, names = _numbers("--horizons", horizons), [name.strip() for name in models.split(",")] if models else []
    pooled = protocol is Protocol.POOLED
    wish = BacktestWish(
        options.zone(settings), options.variable, test_from, split, steps, names, seed,
        pooled=pooled, mask_zeros=mask_zeros, holidays=settings.holidays or (), added=load(_say),
    )  # fmt: skip
    backtest_file(options.open(file, settings, zero_is_missing=mask_zeros), wish, json=json, html=html)


def _numbers(name: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise SourceError(f"{name} {text}: expected whole numbers from 1 on, such as 3,6,12")
    return [int(part) for part in parts]


JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of a table.")]
VersionArgument = Annotated[str, typer.Argument(help="The version, as `roadcast models list` names it.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for those who look later.")]


@app.command()
def train(
    days: Annotated[int | None, typer.Option(help="Days of history at most; by default 56.", min=2)] = None,
    forecasters: Annotated[
        str | None, typer.Option(help="Candidates, comma-separated; by default all that the network's size allows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of those that learn by chance.", min=0)] = 0,
    no_promote: Annotated[bool, typer.Option("--no-promote", help="Save the version and let it not serve.")] = False,
    json: JsonOption = False,
) -> None:
    """Train on what is stored: the best candidate becomes a version, and serves where it beats who did so far."""
    from roadcast.model_commands import TrainWish, train_model  # noqa: PLC0415
    from roadcast.plugins import load  # noqa: PLC0415

    names = [name.strip() for name in forecasters.split(",")] if forecasters else []
    settings = load_settings()
    train_model(settings, TrainWish(days, names, seed, promotes=not no_promote, as_json=json, added=load(_say)))


models = typer.Typer(help="Versions of the trained model.", no_args_is_help=True)
app.add_typer(models, name="models")


@models.command("list")
def list_versions(json: JsonOption = False) -> None:
    """List all versions, the newest first."""
    from roadcast.model_commands import list_models  # noqa: PLC0415

    list_models(load_settings(), as_json=json)


@models.command("show")
def show_version(version: VersionArgument, json: JsonOption = False) -> None:
    """Show what is known about a version."""
    from roadcast.model_commands import show_model  # noqa: PLC0415

    show_model(load_settings(), version, as_json=json)


@models.command("promote")
def promote_version(version: VersionArgument, reason: ReasonOption = "by hand", json: JsonOption = False) -> None:
    """Let a version serve from the feed's newest window on."""
    from roadcast.model_commands import promote_model  # noqa: PLC0415
    from roadcast.plugins import load  # noqa: PLC0415

    promote_model(load_settings(), version, reason, load(_say), as_json=json)


@models.command("rollback")
def roll_back(reason: ReasonOption = "by hand", json: JsonOption = False) -> None:
    """Let the version before serve again, from the feed's newest window on."""
    from roadcast.model_commands import rollback_model  # noqa: PLC0415

    rollback_model(load_settings(), reason, as_json=json)


@app.command()
def simulate(
    draw: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    day: Annotated[str | None, typer.Option(help="The date, such as 2026-03-02; by default the last Monday.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; by default DEMO_SEED.")] = None,
) -> None:
    """Draw the demo's corridor: its time-space diagram and its fundamental diagram."""
    from roadcast.commands import draw_day  # noqa: PLC0415

    draw_day(draw, day, load_settings().demo_seed if seed is None else seed)
