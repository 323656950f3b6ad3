"""What the tests stand on: the engine, the image and the Prefect client they need, made from nothing when missing."""
