"""`python -m deploy.rollout`: the command line of a rollout.

It ends with 0 once the release is rolled out or taken back; 1 if it failed, and the cluster runs what it ran before; 2
if nothing was tried; and 3 if somebody must look at the cluster.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from deploy.rollout.kubectl import Kubectl, KubectlFailed
from deploy.rollout.manifests import Unusable, release_of
from deploy.rollout.steps import Patience, Refused, Stopped, Stuck, roll_back, roll_out
from notifier.vocabulary.untrusted_text import printable


def main(arguments: Sequence[str]) -> int:
    """Run a rollout, or the way back; return the exit code."""
    options = _parser().parse_args(arguments)
    kubectl = Kubectl(options.namespace)
    patience = Patience(options.migration_seconds, options.ready_seconds, options.watch_seconds, options.poll_seconds)
    _end_on_signals()
    try:
        if options.command == "back":
            roll_back(kubectl, patience)
        else:
            roll_out(kubectl, release_of(kubectl.rendered(options.kustomization), options.image), patience)
    except Refused as refused:
        return _fail(str(refused), 1)
    except (Unusable, KubectlFailed) as error:
        return _fail(str(error), 2)
    except (Stuck, Stopped) as stuck:
        return _fail(str(stuck), 3)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.rollout", description="Roll a release out on Kubernetes.")
    commands = parser.add_subparsers(dest="command", required=True)
    forward = commands.add_parser("to", help="migrate, try a canary, promote; roll back what does not become ready")
    forward.add_argument("image", help="the image by its digest, NAME@sha256:…")
    forward.add_argument("--kustomization", required=True, metavar="FOLDER", help="what to roll out")
    back = commands.add_parser("back", help="take back a rollout that was cut short")
    for command in (forward, back):
        command.add_argument("--namespace", default="notifier", help="(%(default)s)")
        command.add_argument("--migration-seconds", type=int, default=900, metavar="N", help="(%(default)s)")
        command.add_argument("--ready-seconds", type=int, default=600, metavar="N", help="a Deployment (%(default)s)")
        command.add_argument("--watch-seconds", type=float, default=120, metavar="N", help="the canary (%(default)s)")
        command.add_argument("--poll-seconds", type=float, default=2, metavar="N", help="(%(default)s)")
    return parser


def _end_on_signals() -> None:
    """Have the first signal end the rollout in good order. Later ones must not interrupt the way back."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(f"Stopped by {signal.Signals(number).name}.")


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"{printable(line, lines=True)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
