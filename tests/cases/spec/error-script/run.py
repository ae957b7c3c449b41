# /// script
# requires-python = 3.11
# dependencies = ["numpy=1", "-r requirements.txt"]
# dependency = []
# ///
