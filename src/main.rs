//! The program; everything is in the library, [`peat_node::cli`] first.

/// What musl has instead has one lock, which every thread waits for (docs/benchmarks.md has the figures).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    peat_node::cli::main()
}
