//! Brings an address of the cluster's network to a port of this machine, without a network device between them.
//!
//! A thread may be in another network than its process: one thread per connection enters the cluster's network,
//! connects, and copies bytes.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result};

use super::Cluster;
use super::layout::{API_PORT, NODE_IP};

impl Cluster {
    /// Connects to an address of the cluster's network from outside.
    ///
    /// # Errors
    /// If the cluster has ended or nothing listens there.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let network = self.network()?;
        connect_in(&network, address).with_context(|| format!("cannot connect to {address} in the cluster"))
    }

    /// Listens on a free loopback port, or on `port`, and passes every connection on to `address` in the
    /// cluster's network, until this process ends. Returns the port.
    ///
    /// # Errors
    /// If the port cannot be had or the cluster has ended.
    pub fn forward(&self, port: u16, address: SocketAddr) -> Result<u16> {
        let network = self.network()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on port {port}"))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || serve(&listener, &network, address));
        Ok(port)
    }

    /// Forwards the API server and returns a kubeconfig that works outside while this process lives.
    ///
    /// # Errors
    /// As [`Cluster::forward`], or if the cluster's kubeconfig cannot be read.
    pub fn kubeconfig_outside(&self) -> Result<String> {
        let port = self.forward(0, SocketAddr::new(NODE_IP.parse()?, API_PORT))?;
        self.kubeconfig_for_port(port)
    }

    /// The administrator's kubeconfig with the server at a loopback port of this machine.
    ///
    /// # Errors
    /// If the cluster's kubeconfig cannot be read.
    pub fn kubeconfig_for_port(&self, port: u16) -> Result<String> {
        let path = self.kubeconfig_path();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.replace(&format!("https://{NODE_IP}:{API_PORT}"), &format!("https://127.0.0.1:{port}")))
    }

    fn network(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/net", self.init.as_raw_nonzero());
        File::open(path).context("the cluster has ended")
    }
}

fn serve(listener: &TcpListener, network: &File, address: SocketAddr) {
    for client in listener.incoming() {
        let (Ok(client), Ok(network)) = (client, network.try_clone()) else { continue };
        // A connection that cannot be made is closed: the caller sees what it would see without us.
        thread::spawn(move || connect_in(&network, address).and_then(|server| join(&client, &server)));
    }
}

/// Connects on a thread of its own: the calling thread stays in its network.
fn connect_in(network: &File, address: SocketAddr) -> io::Result<TcpStream> {
    let network = network.try_clone()?;
    let connected = thread::spawn(move || {
        enter(&network)?;
        TcpStream::connect(address)
    });
    connected.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
}

#[cfg(target_os = "linux")]
fn enter(network: &File) -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| copy(server, client));
        copy(client, server)
    })
}

/// Copies until one side ends, then tells the other.
fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    copied.map(|_| ())
}
