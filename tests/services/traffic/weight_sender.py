"""A weight server in a process of its own, to be killed: `weight_sender.py PORT WEIGHT_PCT`."""

import sys
import time

from services.traffic.rtds import WeightServer

if __name__ == "__main__":
    weight_pct = float(sys.argv[2])
    WeightServer(int(sys.argv[1]), lambda: weight_pct).start()
    time.sleep(600)
