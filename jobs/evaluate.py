"""Evaluates a fine-tuned run: python jobs/evaluate.py runs/NAME [TEST.parquet] [settings]"""

import sys

from tats_ray.cli.evaluation import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main())
