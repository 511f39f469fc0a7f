// Makes the PNG of a mask: white where the picture should change, black elsewhere, nothing in between.
onmessage = async ({ data: { bitmap, width, height, smooth } }) => {
  try {
    const whole = new OffscreenCanvas(width, height);
    const pen = whole.getContext("2d");
    pen.imageSmoothingEnabled = smooth;
    pen.drawImage(bitmap, 0, 0, width, height);
    const image = pen.getImageData(0, 0, width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let index = 0; index < pixels.length; index++) pixels[index] = pixels[index] >>> 24 >= 128 ? 0xffffffff : 0xff000000;
    pen.putImageData(image, 0, 0);
    postMessage({ png: await whole.convertToBlob({ type: "image/png" }) });
  } catch (error) {
    postMessage({ problem: `The browser could not make a picture of what is painted (${error.message}); nothing was sent.` });
  }
};
