# /// script
# dependencies = ["numpy"]
# ///

# /// script
# dependencies = ["scipy"]
# ///
