"""Export of models to artifacts that run without Keras: SavedModel, LiteRT, ONNX, OpenVINO."""
