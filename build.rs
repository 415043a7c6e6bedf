//! Generates the messages nodes exchange, without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["peat/mesh/v1/mesh.proto"], ["proto"])?;
    prost_build::Config::new().bytes([".peat.mesh.v1"]).compile_fds(descriptors)?;
    Ok(())
}
