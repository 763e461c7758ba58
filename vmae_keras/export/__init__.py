"""Models as artifacts that serve without Keras: SavedModel, LiteRT, ONNX, OpenVINO."""
