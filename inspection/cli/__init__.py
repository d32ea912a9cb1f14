"""`inspection ...`: parse, wire, call; no logic. Heavy parts are imported by the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 gate FAIL, 4 gate INSUFFICIENT.
"""

import click

from inspection.cli import answers, networks, products, releases, servers
from inspection.cli.common import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="escapement")
def main() -> None:
    """Visual inspection that closes the loop: camera, verdict, label, retrain, signed model, same device.

    Start with `inspection demo`, or `inspection up` for your own line.
    """


for _module in (servers, products, networks, releases, answers):
    for _command in _module.COMMANDS:
        main.add_command(_command)
