//! A settings file: whatever it says is taken or refused.

#![no_main]

use figment::Figment;
use figment::providers::{Format as _, Toml};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Figment::from(Toml::string(text));
    if let Ok(settings) = file.extract_inner::<tollgate_spool::Settings>("spool") {
        let _ = settings.validate();
    }
    if let Ok(settings) = file.extract_inner::<tollgate_store::Settings>("database") {
        let _ = settings.validate();
    }
    if let Ok(settings) = file.extract_inner::<tollgate_stream::EmbeddedSettings>("embedded") {
        let _ = settings.validate();
    }
    if let Ok(settings) = file.extract_inner::<tollgate_stream::ConsumerSettings>("consumer") {
        let _ = settings.validate();
    }
    let _ = file.extract_inner::<tollgate_billing::Settings>("billing");
    let _ = file.extract_inner::<tollgate_user_state::Settings>("user_state");
});
