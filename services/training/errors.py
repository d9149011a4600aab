"""What goes wrong in the training room, by its own name."""


class TrainingError(ValueError):
    """Training, preprocessing or calibration was asked for something it cannot do honestly."""
