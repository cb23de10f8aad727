//! Laws and models: how a third `Bus`, `Transport` or `Authenticator` is proven like ours.
