"""Writes the report of a run as one HTML page: python jobs/report.py runs/NAME"""

import sys

from tats_ray.cli.report import report_main

if __name__ == "__main__":
    sys.exit(report_main())
