"""Writes weights as others read them: python jobs/export.py RUN FOLDER --format huggingface"""

import sys

from tats_ray.cli.export import export_main

if __name__ == "__main__":
    sys.exit(export_main())
