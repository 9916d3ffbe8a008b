"""The command `sincere-spec`: `verify` judges, `losses` shows the catalogue, `bench` times, `measure` and `study` measure."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import typer

    from sincere_spec.conformance import terminal, verdicts
    from sincere_spec.conformance.candidates import Candidate
    from sincere_spec.conformance.cases import SUITE, CaseError
    from sincere_spec.conformance.files import FILES, check_writable, publish, save
    from sincere_spec.conformance.processes import Ended, ended_by_signals
    from sincere_spec.conformance.programs import Executable
    from sincere_spec.conformance.questions import ORDINARY
    from sincere_spec.conformance.report import Place, Report, earlier, moved, to_json
    from sincere_spec.conformance.runner import CannotJudge, Plan, Request, plan, run
    from sincere_spec.conformance.text import printable, read_json_file
except ImportError as error:
    missing = (error.name or str(error)).partition(".")[0]
    sys.stderr.write(f"sincere-spec: {missing} is not installed; try: pip install 'sincere-spec[verify]'\n")
    raise SystemExit(2) from None

import sincere_spec
from sincere_spec import catalogue
from sincere_spec.errors import OptionError, SincereSpecError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"sincere-spec {sincere_spec.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version, and nothing else.")
    ] = False,
) -> None:
    """Contrastive losses, defined once for every framework, and the suite that holds every framework to it."""


def _words(option: str, given: list[str] | None) -> tuple[str, ...]:
    """The words of an option that may come several times, or with commas; an empty one is refused."""
    words = [word for text in given or () for word in text.split(",")]
    if not all(word.strip() for word in words):
        raise OptionError(f"{option} got an empty word: is a variable unset?")
    return tuple(dict.fromkeys(words))


def _path(option: str, given: str) -> Path:
    """A path; an empty one is refused."""
    if not given.strip():
        raise OptionError(f"{option} got nothing: is a variable unset?")
    return Path(given)


def _refuse(command: str, error: object) -> NoReturn:
    """Say in one line why nothing was done, and end with status 2."""
    sys.stderr.write(f"sincere-spec {command}: {printable(error)}\n")
    raise typer.Exit(2) from None


@app.command()
def verify(
    framework: Annotated[
        list[str] | None, typer.Option(help="numpy, array_api_strict, torch, jax or tensorflow; again for more.")
    ] = None,
    loss: Annotated[
        list[str] | None, typer.Option(help="A loss, such as sincere, or a row, such as 'f_micl kl'; again for more.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="core, degenerate, precision, ..., integrity, digits or transforms; again for more."),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(help="core, robust or extreme: so many profiles, core judged by norm; again for more."),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float16, bfloat16, float32 or float64; again for more.")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help="dense, tiled or kernel; again for more columns.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes at a time; each runs one framework on one thread.")] = 2,
    report: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Where report.json, report.html, report.md, report.xml (JUnit) and badge.json go."
        ),
    ] = "conformance-report",
    compare: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="An earlier report.json: also say which verdicts are others now."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The report as JSON on standard output, and no matrix.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ordinary cases in float32 only, without the digits: half a minute.")
    ] = False,
    impl: Annotated[
        str | None,
        typer.Option(
            help="Judge package.module:callable instead, with one --loss and one --framework. It gets embeddings of any "
            "norm, integer labels and the temperature, and is judged as the loss with normalize=True and the mean."
        ),
    ] = None,
    call: Annotated[
        str | None,
        typer.Option(help="How it is called, such as 'f(z, y, temperature=t)'; also a, b, keys, epsilon, ..."),
    ] = None,
    reduction: Annotated[
        str, typer.Option(help="The reduction that --impl has: mean, pairs, batch, sum or none.")
    ] = "mean",
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Judge the losses of other packages instead, those that are installed; report/peers.json and peers.md.",
        ),
    ] = False,
    program: Annotated[
        str | None,
        typer.Option(
            "--exec",
            help="Judge a program in any language instead: it answers lines of JSON, see conformance/README.md.",
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(metavar="PATH", help="Other cases: a folder of the suite's files.", show_default="the suite"),
    ] = str(SUITE),
    digits: Annotated[bool, typer.Option(help="Also judge every loss on the 1797 handwritten digits.")] = True,
    transforms: Annotated[
        bool, typer.Option(help="Also run every transform of the frameworks, such as jit and vmap, on three losses.")
    ] = True,
    timeout: Annotated[
        float, typer.Option(help="Seconds of silence after which a framework's process is ended.")
    ] = 180.0,
) -> None:
    """Hold every installed framework to the conformance suite, and to real data.

    Every loss is evaluated and differentiated in every dtype and judged against an oracle of 80 digits. Each framework
    runs in a process of its own.

    Exit status: 0 if everything that was asked passed, 1 if something failed, 2 if it could not be judged.

    Example: `sincere-spec verify --framework torch --framework jax --loss sincere --dtype float32`
    """
    try:
        with ended_by_signals():
            for option, text in (("--impl", impl), ("--call", call), ("--exec", program)):
                if text is not None and not text.strip():
                    raise OptionError(f"{option} got nothing: is a variable unset?")
            if program and (impl or call):
                raise OptionError("--exec judges a program and --impl a callable; give one of them.")
            if peers and (program or impl or call or engine or compare):
                raise OptionError("--peers takes --framework, --loss, --profile and --dtype; leave out the others.")
            if reduction != "mean" and not impl:
                raise OptionError("--reduction says which one --impl has; give both.")
            callable_ = Candidate(impl or "", call or "", reduction) if impl or call else None
            request = Request(
                candidate=Executable(program, timeout / 2) if program else callable_,
                frameworks=_words("--framework", framework),
                losses=_words("--loss", loss),
                profiles=_words("--profile", profile) or (ORDINARY if quick and not level else ()),
                levels=_words("--level", level),
                dtypes=_words("--dtype", dtype) or (("float32",) if quick else ()),
                engines=_words("--engine", engine) or (("dense",) if quick else ()),
                digits=digits and not quick,
                transforms=transforms and not quick,
                jobs=jobs,
                timeout=timeout,
                suite=_path("--suite", suite).resolve(),
            )
            folder = _path("--report", report)
            if peers:
                raise typer.Exit(_peers(request, folder, as_json))
            before = None if compare is None else _earlier(_path("--compare", compare))
            todo = plan(request)
            check_writable(folder, FILES)
            made = _judged(request, todo, as_json)
            changes = None if before is None else moved(before, made)
            with suppress(BrokenPipeError):  # whoever reads has seen enough
                _show(made, as_json)
            files: tuple[Path, ...] = ()
            try:
                files = save(made, folder)
            finally:
                if not as_json:
                    with suppress(BrokenPipeError):
                        _conclude(made, files, changes)
    except (SincereSpecError, CannotJudge, CaseError, OSError) as error:
        _refuse("verify", error)
    except Ended as how:
        _refuse("verify", f"{how}; no report was written.")
    raise typer.Exit(made.exit_status)


def _show(made: Report, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(to_json(made))
        sys.stdout.flush()
    else:
        terminal.show(made, terminal.console())


def _conclude(made: Report, files: tuple[Path, ...], changes: list[str] | None) -> None:
    """What is otherwise than before, where the files are, and last the verdict."""
    out = terminal.console()
    for line in changes or ():
        out.print(line, markup=False, soft_wrap=True)
    if changes is not None:
        out.print(
            f"{len(changes) or 'No'} verdict{'s' * (len(changes) != 1)} changed since the earlier report.", markup=False
        )
    terminal.written(files, out)
    terminal.show_verdict(made, out)


def _peers(request: Request, folder: Path, as_json: bool) -> int:
    """Judge other packages' losses; the exit status."""
    asked = verdicts.chosen(request.frameworks, request.losses)
    if not asked:
        raise CannotJudge("no package of the catalogue has this loss in this framework")
    check_writable(folder, ("peers.json", "peers.md"))
    command = shlex.join(["sincere-spec", "verify", *(word for word in sys.argv[1:] if word != "verify")])
    with terminal.tally(terminal.console(errors=True), len(asked)) as tell:
        made = verdicts.judged(asked, request, command, tell)
    data = verdicts.to_json(made)
    with suppress(BrokenPipeError):
        if as_json:
            sys.stdout.write(data)
        else:
            terminal.show_field(made, terminal.console())
    files = publish({"peers.json": data, "peers.md": verdicts.markdown(made)}, folder)
    if not as_json:
        terminal.written(files, terminal.console())
    return made.exit_status


def _earlier(path: Path) -> dict[Place, str]:
    try:
        return earlier(read_json_file(path))
    except ValueError as error:  # not JSON, or another's
        raise OptionError(f"{path} is no report.json: {error}") from error


def _judged(request: Request, todo: Plan, quiet: bool) -> Report:
    with terminal.Board(terminal.console(errors=quiet), todo, request.jobs).live() as board:
        return run(request, board)


@app.command("losses")
def show_losses(
    name: Annotated[
        list[str] | None, typer.Argument(help="A loss, such as sincere; all of them if none is named.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The catalogue as JSON on standard output.")] = False,
) -> None:
    """The catalogue: every loss with its formula, and the stages that compute it.

    Example: `sincere-spec losses sincere`
    """
    try:
        found = catalogue.entries(name or ())
    except SincereSpecError as error:
        _refuse("losses", error)
    sys.stdout.write(catalogue.as_json(found) if as_json else catalogue.shown(found))


def bench(
    framework: Annotated[
        list[str] | None, typer.Option(help="numpy, torch, jax or tensorflow; again for more.")
    ] = None,
    loss: Annotated[list[str] | None, typer.Option(help="A loss, such as sincere; again for more.")] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="N, the rows of the similarity matrix; again for more.")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help="dense, tiled, kernel or auto; again for more.")] = None,
    dim: Annotated[int, typer.Option(help="Numbers in an embedding.")] = 128,
    classes: Annotated[int, typer.Option(help="Classes of the labelled losses.")] = 100,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of every framework.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Two losses at small sizes, into report/bench.")] = False,
    peers: Annotated[bool, typer.Option(help="Also measure other packages that are installed.")] = True,
    memory: Annotated[bool, typer.Option(help="Also measure peaks of memory, each in a process of its own.")] = True,
    output: Annotated[
        Path | None, typer.Option(help="Where JSON and figures go; benchmarks/results if not said.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The results as JSON on standard output, and no table.")
    ] = False,
    render: Annotated[
        bool,
        typer.Option(
            "--render", help="Measure nothing: figures, and the tables of docs/speed.md, from the JSON in --output."
        ),
    ] = False,
    adopt: Annotated[
        Path | None,
        typer.Option(
            help="Measure nothing: make the tables of crossovers and shapes from this folder of a device run."
        ),
    ] = None,
    crossover: Annotated[
        bool, typer.Option("--crossover", help="Only find from how many pairs on tiles are faster; prints the table.")
    ] = False,
    relations: Annotated[
        bool,
        typer.Option(
            "--relations",
            help="Instead measure what where, ignore and relations cost; benchmarks/relations if not said.",
        ),
    ] = False,
) -> None:
    """Speed and memory, forward and backward, against the plain formula and installed peers.

    Compared programs take turns in one process for each framework. A time is quoted in milliseconds and in units: one
    unit is one similarity matrix as products of tiles, in the same process. A program is stopped at 8 GB, on a GPU at
    the device's memory, and one that is not ours at 60 s.

    Exit status: 0 if all of it could be measured, 1 if a program failed, 2 if it could not run.

    Example: `sincere-spec bench --framework torch --loss sincere --size 1024 --size 4096`
    """
    from sincere_spec.bench import command

    try:
        if adopt:
            status = command.adopt(adopt)
        elif render:
            folder = output or (command.RELATION_RESULTS if relations else command.RESULTS)
            status = command.render(folder, relations=relations)
        else:
            chosen = command.settings(
                frameworks=_words("--framework", framework),
                losses=_words("--loss", loss),
                sizes=tuple(size or ()),
                engines=_words("--engine", engine),
                dim=dim,
                classes=classes,
                dtype=dtype,
                device=device,
                threads=threads,
                quick=quick,
                peers=peers,
                memory=memory,
                relations=relations,
            )
            committed = command.RELATION_RESULTS if relations else command.RESULTS
            folder = output or (command.QUICK_RESULTS if quick else committed)
            status = (
                command.crossover(chosen, quick=quick)
                if crossover
                else command.run(chosen, output=folder, as_json=as_json)
            )
    except (command.CannotRun, OSError, ValueError) as error:
        _refuse("bench", error)
    except KeyboardInterrupt:
        sys.stderr.write("sincere-spec bench: interrupted; the framework that was being measured is not written.\n")
        raise typer.Exit(command.CANNOT) from None
    raise typer.Exit(status)


if find_spec("sincere_spec.bench") is not None:  # of a checkout; wheels have none
    app.command()(bench)


@app.command("measure")
def measure_files(
    embeddings: Annotated[str, typer.Argument(help="[rows, d]: .npy, .npz (as file.npz:name), .csv or .pt.")],
    labels: Annotated[str, typer.Argument(help="One class a row, in a file of the same kinds; strings in .csv.")],
    keys: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="EMBEDDINGS LABELS",
            help="Search these rows, such as the training set's, instead of each row's others.",
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(help="Also what sincere, supcon, supcon_in or decoupled does to these rows.", show_default="none"),
    ] = "",
    temperature: Annotated[float, typer.Option(help="Of the loss.")] = 0.1,
    k: Annotated[str, typer.Option(help="Of recall@k and of the k-NN vote, with commas.")] = "1,5,10",
    framework: Annotated[str, typer.Option(help="numpy, torch, jax or tensorflow.")] = "numpy",
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the histograms of nearest similarities: .svg, .png or .pdf.", show_default="none"),
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the rows for 95 % intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="The measures as JSON on standard output, and no table.")
    ] = False,
) -> None:
    """Every measure of embeddings from files: geometry, neighbours, retrieval, and what a loss does to them.

    No file is unpickled. Rows are normalised; rows of zeros are left out and counted.

    Exit status: 0 if it was measured, 2 if it could not be.

    Example: `sincere-spec measure test.npz:z test.npz:labels --keys train.npz:z train.npz:labels --figure nearest.svg`
    """
    from sincere_spec import measure

    try:
        numbers = tuple(int(word) if word.strip().isdigit() else 0 for word in k.split(","))
        if 0 in numbers:
            raise OptionError(f"--k is positive integers with commas; got {k}")
        measure.run(
            embeddings,
            labels,
            keys=keys,
            loss=loss,
            temperature=temperature,
            k=numbers,
            framework=framework,
            as_json=as_json,
            figure=figure,
            bootstrap=bootstrap,
            seed=seed,
        )
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        sys.stderr.write(f"sincere-spec measure: {missing} is not installed; try: pip install 'sincere-spec[study]'\n")
        raise typer.Exit(2) from None
    except (SincereSpecError, measure.CannotMeasure, OSError) as error:
        sys.stderr.write(f"sincere-spec measure: {error}\n")
        raise typer.Exit(2) from None


@app.command("study")
def study_claims(
    part: Annotated[
        list[str] | None,
        typer.Option(help="repulsion, separation, temperature, divergences or equivalence; again for more."),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="fashion, digits, or a folder of Fashion-MNIST or CIFAR-10 (cifar-10-batches-py).",
            show_default="Fashion-MNIST where it is found, else digits",
        ),
    ] = "",
    framework: Annotated[
        str,
        typer.Option(
            help="torch, jax, tensorflow or numpy; all compares every one.", show_default="the first installed"
        ),
    ] = "",
    loss: Annotated[
        list[str] | None, typer.Option(help="sincere, supcon_out, supcon_in or cross_entropy; again for more.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each loss.", show_default="3; with --quick 1")] = None,
    images: Annotated[int, typer.Option(help="Training images.")] = 8192,
    epochs: Annotated[int | None, typer.Option(help="Passes over them.", show_default="8; of digits 40")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Digits, one seed, two parts: under a minute.")] = False,
    output: Annotated[Path, typer.Option(help="Where study.json, study.html, study.md and the figures go.")] = Path(
        "study-report"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Also keep all embeddings, in output/runs/*.npz.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="study.json on standard output, too.")] = False,
) -> None:
    """The papers' claims, measured: trains small encoders on real images, and says of each claim whether it is seen.

    By default 39 trainings and their measures, about six minutes of one quiet core; --quick trains on digits. Verdicts are
    computed by the rule that is printed beside each.

    Exit status: 0 if it was run, whatever the verdicts are; 2 if it could not be run, or was cut short.

    Example: `sincere-spec study --part equivalence --framework all`
    """
    try:
        from sincere_spec.study import command
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        sys.stderr.write(f"sincere-spec study: {missing} is not installed; try: pip install 'sincere-spec[study]'\n")
        raise typer.Exit(2) from None
    try:
        status = command.run(
            parts=_words("--part", part),
            data=data,
            framework=framework,
            losses=_words("--loss", loss),
            seeds=seeds,
            images=images,
            epochs=epochs,
            quick=quick,
            output=output,
            keep=keep,
            as_json=as_json,
        )
    except (command.CannotRun, command.DataError, SincereSpecError, OSError) as error:
        sys.stderr.write(f"sincere-spec study: {error}\n")
        raise typer.Exit(2) from None
    raise typer.Exit(status)


def verify_alone() -> None:
    """`verify` by itself, for `python -m sincere_spec.conformance`."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    alone.command()(verify)
    alone(prog_name="python -m sincere_spec.conformance")


def main() -> None:
    """The command `sincere-spec`."""
    app(prog_name="sincere-spec")


if __name__ == "__main__":
    main()
