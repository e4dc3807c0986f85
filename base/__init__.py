"""What knows nothing of lungs: the data loader, the model and the trainer that the others build on."""
