"""Makes a manifest: python jobs/prepare_data.py FOLDER_OR_LIST MANIFEST.parquet [options]"""

import sys

from tats_ray.cli.prepare import prepare_data_main

if __name__ == "__main__":
    sys.exit(prepare_data_main())
