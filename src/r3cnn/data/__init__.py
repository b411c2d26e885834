"""COCO-format data: annotation files, transforms, samplers, the data module and the embedded shapes data set."""
