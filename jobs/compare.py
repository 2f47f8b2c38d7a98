"""Compares masking systems: python jobs/compare.py --config configs/studies/NAME.yaml ..."""

import sys

from tats_ray.cli.evaluation import compare_main

if __name__ == "__main__":
    sys.exit(compare_main())
