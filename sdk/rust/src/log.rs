//! Lines in walmill's log, under the plugin's name.

use crate::bindings::walmill::plugin::log;

/// Something that the operator should look at.
pub fn warn(message: &str) {
    log::log(log::Level::Warn, message);
}

/// Something worth knowing.
pub fn info(message: &str) {
    log::log(log::Level::Info, message);
}

/// For who looks closely; the message is made only when somebody does.
pub fn debug(message: impl FnOnce() -> String) {
    if log::enabled(log::Level::Debug) {
        log::log(log::Level::Debug, &message());
    }
}
