//! Compiles `native/wait.c`, where librdkafka waits by the C library that it is written for.

fn main() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|it| it == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        cc::Build::new()
            .file("native/wait.c")
            .warnings_into_errors(true)
            .link_lib_modifier("+whole-archive")
            .compile("tollgate_wait");
    }
    println!("cargo::rerun-if-changed=native/wait.c");
}
