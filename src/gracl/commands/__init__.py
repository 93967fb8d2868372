"""What can be typed after `gracl`: a command a file, its flags first, then what it does."""
