//! Writes, reads and lists a few keys of the cluster at `MESH_ENDPOINTS` (`host:port,...`; 127.0.0.1:7700 unless set).

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use mesh_client::{Cluster, Range, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let endpoints = std::env::var("MESH_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7700".to_owned());
    let cluster = Cluster::connect(endpoints.split(',')).await?;
    let topology = cluster.topology();
    println!("cluster {} has {} shards", topology.cluster(), topology.shards().len());

    for (planet, moons) in [("mars", "2"), ("earth", "1"), ("venus", "0")] {
        let written = cluster.put(format!("tour/{planet}"), moons).await?;
        println!("put {planet} at revision {}", written.revision);
    }

    if let Some(item) = cluster.get("tour/mars").await? {
        println!("mars has {} moons; it was written {} times", item.value.escape_ascii(), item.version);
    }

    let mut planets = cluster.range(Range::prefix("tour/"));
    while let Some(entry) = planets.next().await {
        let entry = entry?;
        println!("{} = {}", entry.key.escape_ascii(), entry.item.value.escape_ascii());
    }

    let deleted = cluster.delete_many(["tour/mars", "tour/earth", "tour/venus"]).await?;
    println!("deleted {} keys", deleted.deleted);
    cluster.close();
    Ok(())
}
