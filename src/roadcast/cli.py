"""The command `roadcast`. An error is one line with its remedy; `--verbose` shows the trace."""

import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from roadcast.errors import RoadcastError, SourceError
from roadcast.settings import Mode, doubts, load_settings

app = typer.Typer(
    help="Roadcast: real-time traffic prediction.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

ModeOption = Annotated[Mode, typer.Option("--config", help="How the system is run.")]


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the trace of an error.")] = False,
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
    except typer.TyperException as error:
        if str(error):  # what has none has shown the help
            what = str(error).removeprefix("Value error, ").removesuffix(".")
            _say(f"{what}. roadcast --help says what there is.")
        sys.exit(2)
    except (RoadcastError, OSError) as error:
        if _Errors.verbose:
            raise
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        _say(said)
        sys.exit(1)
    except KeyboardInterrupt:
        _say("interrupted.")
        sys.exit(130)


def _say(text: str) -> None:
    sys.stderr.write(f"roadcast: {' '.join(text.split())}\n")


@app.command()
def serve(
    config: ModeOption = Mode.DEVELOPMENT,
    health_check: Annotated[bool, typer.Option(help="Say how everything is, once it runs.")] = False,
) -> None:
    """Run everything in the foreground until Ctrl-C."""
    from roadcast.supervisor import supervise  # noqa: PLC0415 - each command loads only what it needs

    settings = load_settings(config)
    for doubt in doubts(settings):
        _say(f"warning: {doubt}")
    raise typer.Exit(supervise(settings, config, health_check=health_check))


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
    import httpx  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    address = url or load_settings().local_url
    try:
        answer = httpx.get(f"{address}/health/detailed", timeout=10).json()
    except (httpx.HTTPError, ValueError) as error:
        raise SourceError(f"{address} does not answer.", remedy="Start it: python3 src/api/deploy.py") from error
    table = Table(title=f"{address}: {answer['status']}")
    for name in ("part", "status", "since", "detail", "remedy"):
        table.add_column(name, overflow="fold")
    for part in answer["parts"]:
        table.add_row(part["name"], part["status"], part["since"], part["detail"], part["remedy"])
    Console().print(table)
    raise typer.Exit(0 if answer["status"] in {"ok", "healthy", "starting"} else 1)


FileArgument = Annotated[Path, typer.Argument(help="The file.")]
StrictOption = Annotated[bool, typer.Option(help="Stop at the first bad row.")]
ZoneOption = Annotated[str | None, typer.Option("--timezone", help="Zone of naive stamps; by default TIMEZONE.")]
LocationsOption = Annotated[Path | None, typer.Option(help="Sensor locations, where the file has none.")]
DistancesOption = Annotated[Path | None, typer.Option(help="Distances between sensors, where the file has none.")]
SpeedUnitOption = Annotated[str, typer.Option(help="Unit of speeds in a CSV: mph or km/h.")]
DensityUnitOption = Annotated[str, typer.Option(help="Unit of densities in a CSV: veh/mi or veh/km.")]
OccupancyUnitOption = Annotated[str, typer.Option(help="Unit of occupancies in a CSV: fraction or percent.")]
VariableOption = Annotated[str, typer.Option(help="What a wide CSV holds.")]


@app.command("import")
def import_file(
    file: FileArgument,
    strict: StrictOption = False,
    timezone: ZoneOption = None,
    locations: LocationsOption = None,
    distances: DistancesOption = None,
    speed_unit: SpeedUnitOption = "mph",
    density_unit: DensityUnitOption = "veh/mi",
    occupancy_unit: OccupancyUnitOption = "fraction",
    variable: VariableOption = "speed",
) -> None:
    """Load history and sensors from a file: npz, METR-LA/PEMS-BAY HDF5, PeMS station text, CSV (wide or long)."""
    from roadcast.commands import import_history, latest_ms  # noqa: PLC0415
    from roadcast.sources.formats import FormatOptions, open_source  # noqa: PLC0415

    settings = load_settings()
    options = FormatOptions(
        timezone or settings.timezone, locations, distances, speed_unit, density_unit, occupancy_unit, variable,
        latest_ms=latest_ms(settings),
    )  # fmt: skip
    import_history(settings, open_source(file, options), strict=strict)


@app.command()
def replay(
    file: FileArgument,
    speed: Annotated[float, typer.Option(help="Seconds of event time per second; 0: as fast as possible.")] = 60.0,
    url: Annotated[str | None, typer.Option(help="The system's address; by default the local one.")] = None,
    strict: StrictOption = False,
    timezone: ZoneOption = None,
    locations: LocationsOption = None,
    distances: DistancesOption = None,
    speed_unit: SpeedUnitOption = "mph",
    density_unit: DensityUnitOption = "veh/mi",
    occupancy_unit: OccupancyUnitOption = "fraction",
    variable: VariableOption = "speed",
) -> None:
    """Feed a file to the running system in event time."""
    from roadcast.commands import latest_ms, replay_file  # noqa: PLC0415
    from roadcast.sources.formats import FormatOptions, open_source  # noqa: PLC0415

    settings = load_settings()
    options = FormatOptions(
        timezone or settings.timezone, locations, distances, speed_unit, density_unit, occupancy_unit, variable,
        latest_ms=latest_ms(settings),
    )  # fmt: skip
    replay_file(settings, open_source(file, options), speed=speed, url=url, strict=strict)


@app.command()
def simulate(
    draw: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    day: Annotated[str | None, typer.Option(help="The date, such as 2026-03-02; by default the last Monday.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; by default DEMO_SEED.")] = None,
) -> None:
    """Draw the demo's corridor: its time-space diagram and its fundamental diagram."""
    from roadcast.commands import draw_day  # noqa: PLC0415

    draw_day(draw, day, load_settings().demo_seed if seed is None else seed)
