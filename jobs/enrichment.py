"""Do masks lie on what moves? python jobs/enrichment.py runs/NAME MASKS.parquet [settings]"""

import sys

from tats_ray.cli.evaluation import enrichment_main

if __name__ == "__main__":
    sys.exit(enrichment_main())
