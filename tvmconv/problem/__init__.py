"""What is to be computed: specs, TensorFlow's argument forms, keys, workloads. Standard library only."""
