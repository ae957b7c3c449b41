# /// script
# dependencies = ["numpy"]

import numpy
