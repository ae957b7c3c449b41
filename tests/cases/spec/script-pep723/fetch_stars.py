#!/usr/bin/env -S uv run
# /// other
# dependencies = ["not-this"]
# ///
"""Fetches a catalogue of stars."""
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "httpx<1",
#   "rich ; sys_platform == 'linux'",  # colours
# ]
#
# [tool.uv]
# exclude-newer = "2026-10-01T00:00:00Z"
#
# [tool.other]
# x = 1
# ///

import httpx

print(httpx.get("https://stars.example").text)
