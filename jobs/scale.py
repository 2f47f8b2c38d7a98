"""Changes how many rollout workers a run has: python jobs/scale.py RUN --rollout-workers N"""

import sys

from tats_ray.cli.scale import scale_main

if __name__ == "__main__":
    sys.exit(scale_main())
