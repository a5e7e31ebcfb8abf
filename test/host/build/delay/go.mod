module layerswarm.invalid/delay

go 1.26.3
