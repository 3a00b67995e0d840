"""Studies: does the reasoning steer, how many samples, does driving compute what training did."""
