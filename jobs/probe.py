"""Evaluates frozen features: python jobs/probe.py probe.checkpoint=runs/NAME probe.train=... ..."""

import sys

from tats_ray.cli.evaluation import probe_main

if __name__ == "__main__":
    sys.exit(probe_main())
