#!/usr/bin/env python3
"""Notifier's command line."""

from deploy.commands.cli import cli

if __name__ == "__main__":
    cli()
