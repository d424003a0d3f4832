"""Prove later that a copy has the same content, block by block."""

import vhdx_mmap

with vhdx_mmap.open("disk.vhdx") as disk:
    disk.manifest("sha256").save("disk.manifest")

with vhdx_mmap.open("disk.vhdx") as copy:
    report = copy.verify("disk.manifest")
    print("same content:", report["ok"], "in", report["blocks"], "blocks")
    for row in report["mismatches"]:
        print("block", row["block"], "at", row["start"], "differs")
