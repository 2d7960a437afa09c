"""N2N: finds small networks that keep the accuracy of a trained one."""
