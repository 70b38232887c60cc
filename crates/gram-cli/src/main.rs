//! The `gram` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Training allocates and frees many tensors of some megabytes, which glibc's allocator maps and unmaps one by one.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    gram_cli::main()
}
