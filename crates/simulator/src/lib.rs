//! A stand-in platform: scripted calls, honest repeats, faults on demand, and a verifier.
