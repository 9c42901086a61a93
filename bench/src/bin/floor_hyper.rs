//! What hyper costs by itself: one thread, HTTP/1.1, a constant redirect, nothing looked up.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

const TARGET: HeaderValue =
    HeaderValue::from_static("https://www.example.com/a/page/of/ordinary/length?with=a&query=string");
const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    let address: SocketAddr = listener.local_addr()?;
    println!("listening on http://{address}");

    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(redirect))
                .await;
            if let Err(error) = served {
                eprintln!("connection ended: {error}");
            }
        });
    }
}

async fn redirect(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut answer = Response::new(Empty::new());
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(LOCATION, TARGET);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    Ok(answer)
}
