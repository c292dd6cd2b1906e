//! What a guest returns is hostile until checked here.
