"""Fovea's launcher: python launch.py --experiment=NAME [--mode=MODE] [flags].

The only file that sees absl flags: the fields of the experiment's Config become flags, the flags
become a Config again, and a command of research/commands gets it.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

import experiments
from research import config as config_lib
from research import flagfiles
from research.code.running import described, place
from research.comparison import stated, study_file
from research.errors import FailedError, UserError, is_full
from research.modes import LaunchConfig
from research.training.config import RunConfig, TrainingConfig
from research.training.interrupts import Stopped

EXPERIMENTS = experiments.FOLDER
PRESETS = EXPERIMENTS / "presets"
ABOUT = """Fovea's launcher: python launch.py --experiment=NAME [--mode=MODE] [flags].

--experiment=NAME --help shows all flags of an experiment; those below are of every one.
"""
DEFINERS = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}


class NumberOrAuto(flags.IntegerParser):
    """Reads a whole number, or "auto", which stands for a number that no one may type."""

    def __init__(self, auto: int) -> None:
        super().__init__()
        self.auto = auto

    def convert(self, argument: str | int) -> int:
        """Returns the number; raises ValueError for other text, and for the one of "auto"."""
        if argument == "auto":
            return self.auto
        if (number := super().convert(argument)) == self.auto:
            raise ValueError("a number or auto is needed")
        return number


def define(values: flags.FlagValues, config_class: type) -> None:
    """Defines one typed flag for each field of a configuration, and for each that it had once.

    Raises:
      UserError: for a field that has the name of a launcher's flag and is another.
    """
    ours = {row.flag: row for row in config_lib.options(LaunchConfig)}
    for row in config_lib.options(config_class):
        if row.flag in values:  # an experiment that keeps a launcher's flag in its Config shares it
            shared = ours[row.flag]
            if (shared.type, shared.default) != (row.type, row.default):
                raise UserError(
                    f"{config_class.__name__}.{row.name}: --{row.flag} is a flag of the launcher; "
                    "give the field another name."
                )
            continue
        if row.choices:
            flags.DEFINE_enum(row.flag, row.default, row.choices, row.help, flag_values=values)
        elif row.auto is not None:
            parser = NumberOrAuto(row.auto)
            serialiser = flags.ArgumentSerializer()
            flags.DEFINE(parser, row.flag, row.default, row.help, values, serialiser)
        else:
            default = list(row.default) if row.type is tuple else row.default
            definer = flags.DEFINE_multi_string if row.repeated else DEFINERS[row.type]
            definer(row.flag, default, row.help, flag_values=values)
    for name, default in config_lib.retired(config_class).items():
        DEFINERS[type(default)](name, default, "Of earlier versions.", flag_values=values)


def collect(values: flags.FlagValues, config_class: type) -> tuple[Any, set[str]]:
    """Returns the configuration the flags describe, and the names that were given explicitly.

    Raises:
      UserError: for a value that is not allowed, and a retired flag that is not at its default.
    """
    for name in config_lib.retired(config_class):
        config_lib.check_retired(config_class, name, values[name].value)
    names = {row.name: row.flag for row in config_lib.options(config_class)}
    fields = {name: values[flag].value for name, flag in names.items()}
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    config = config_lib.validate(config_class(**fields))
    given = {name for name, flag in names.items() if values[flag].present}
    if isinstance(config, RunConfig):
        given -= {
            row.name
            for row in config_lib.options(config_class)
            if row.auto is not None and fields[row.name] == row.auto
        }
        config = dataclasses.replace(config, unchosen=tuple(sorted(names.keys() - given)))
    return config, given


def parse(argv: list[str]) -> tuple[LaunchConfig, Any, Any, set[str]]:
    """Returns what to do, the experiment's module (or None), its Config, and the flags given."""
    values = flags.FlagValues()
    define(values, LaunchConfig)
    argv = argv[:1] + flagfiles.expand(argv[1:], PRESETS)
    argv = [f"{flag}={stated.ALL}" if flag.lstrip("-") == "results" else flag for flag in argv]
    wants_help = any(a in ("--help", "-h", "-help", "--helpfull") for a in argv)
    values(argv, known_only=True)
    launch, _ = collect(values, LaunchConfig)
    declared = study_file.read(study_file.find(launch.study, PRESETS)) if launch.study else None
    if declared is not None:  # the shell's flags come after the file's, and so win
        argv = [argv[0], *common_flags(declared, launch), *argv[1:]]
        launch = dataclasses.replace(launch, experiment=declared.experiment or launch.experiment)
    module = None
    if launch.experiment:
        module = experiments.open_experiment(launch.experiment)
    elif launch.checkpoint:
        from research.training.checkpoint import locate, read_metadata

        path = locate(launch.checkpoint[0])
        module = experiments.open_trained(read_metadata(path), path)
    elif any(a.startswith(("--init_from=", "-init_from=")) for a in argv):
        module = experiments.open_experiment("classification")  # what trained networks come from
    config_class = module.Config if module else TrainingConfig
    if declared is not None:
        study_file.check_flags(declared, config_lib.options(config_class))
    if wants_help:
        print((module.__doc__ or "") if module else ABOUT)
        print(f"Experiments: {', '.join(known(launch.experiment))}\n")
        print("--flagfile=PATH: read flags from a preset (experiments/presets) or RUN/flags.txt\n")
        print(config_lib.manual(LaunchConfig), config_lib.manual(config_class), sep="\n\n")
        sys.stdout.flush()
        raise SystemExit(0)
    values.unparse_flags()
    define(values, config_class)
    rest = values(argv)[1:]
    if rest:
        raise UserError(f"{rest[0]!r} is no flag; flags look like --name=value.")
    flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for it
    config, given = collect(values, config_class)
    name = experiments.name_of(module) if module else ""
    return dataclasses.replace(launch, experiment=name), module, config, given


def known(said: str) -> list[str]:
    """Lists the experiments that come with Fovea, and the person's own that --experiment said."""
    return list(dict.fromkeys([*experiments.names(), *([said] if said else [])]))


def common_flags(declared: study_file.StudyFile, launch: LaunchConfig) -> list[str]:
    """Returns the flags that a study file has for all its variants, the experiment's among them.

    Raises:
      UserError: where --experiment names another.
    """
    said = declared.experiment
    if said and launch.experiment not in ("", said):
        raise UserError(
            f"--experiment={launch.experiment}: {declared.path} is a study of "
            f"--experiment={said}; leave it out."
        )
    return [*([f"--experiment={said}"] if said else []), *study_file.arguments(declared.flags)]


def variant_of(
    launch: LaunchConfig, module: Any, argv: list[str], name: str, arguments: Sequence[str]
) -> Any:
    """Returns the Config of one variant of a study.

    Raises:
      UserError: for another experiment's, and for flags that are none, with the variant's name.
    """
    try:
        _, other, config, _ = parse([*argv, *arguments])
    except (UserError, flags.Error) as error:
        raise UserError(f"variant {name}: {error}") from error
    if other is not module:
        raise UserError(f"variant {name}: a study is of one experiment, {launch.experiment}.")
    return config


def main(argv: list[str] | None = None) -> int:
    """Runs one command, of the shell's by default.

    Returns the exit code: 0; 1 for work that failed; 2 for what a person can mend; 3 for a study in
    which some runs failed; 128 + the signal that ended training.
    """
    argv = sys.argv if argv is None else argv
    try:
        launch, module, config, given = parse(argv)
        if module is None and launch.mode not in ("list", "prepare", "compare", "reproduce"):
            names = ", ".join(experiments.names())
            trained = launch.mode in ("evaluate", "predict")
            needed = "--checkpoint=RUN or --experiment" if trained else "--experiment"
            raise UserError(f"{needed} is needed: one of {names}, or path/to/mine.py.")
        from research import commands  # imports JAX, which --help need not wait for

        variant = functools.partial(variant_of, launch, module, argv)
        with commands.prepared(launch, config):
            return commands.run(
                launch,
                module,
                config,
                given,
                EXPERIMENTS,
                variant,
                argv[1:],
                experiments.open_experiment,
            )
    except UserError as error:
        return refuse(str(error), error.exit_code)
    except flags.Error as error:
        return refuse(str(error))
    except ImportError as error:
        where = place(error)  # where an import statement of a person's own stands in a function
        if not where:
            raise
        return refuse(f"{where}: {described(error)}")
    except BrokenPipeError:  # what reads it, such as `| head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not is_full(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return refuse(
            f"{where}cannot be written ({error.strerror}); what was saved before is intact. "
            "Make room and run the same command again to go on.",
            FailedError.exit_code,
        )
    except Stopped as stopped:
        return stopped.exit_code


def refuse(reason: str, code: int = UserError.exit_code) -> int:
    """Says in one line what a person can mend; returns the exit code."""
    print(f"error: {' '.join(reason.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
